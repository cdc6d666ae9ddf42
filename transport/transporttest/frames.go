package transporttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/livemigrate/migrate/transport"
)

func framesArriveWholeAndInOrder(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 2)
	for _, lane := range []struct{ from, to transport.Lane }{
		{a.Control(), b.Control()},
		{b.Control(), a.Control()},
		{a.Lanes()[0], b.Lanes()[0]},
		{b.Lanes()[1], a.Lanes()[1]},
	} {
		stream(t, lane.from, lane.to, []int{0, 1, 3, 4, 5, 1000, 4096, 16 << 10, 16<<10 - 4, 16<<10 - 3, 70_000, 300_001, 2, 0})
	}
}

func bothDirectionsAtOnce(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 1)
	sizes := make([]int, 40)
	for i := range sizes {
		sizes[i] = i * 9_973
	}
	var wait sync.WaitGroup
	wait.Go(func() { stream(t, a.Lanes()[0], b.Lanes()[0], sizes) })
	wait.Go(func() { stream(t, b.Lanes()[0], a.Lanes()[0], sizes) })
	wait.Go(func() { stream(t, a.Control(), b.Control(), sizes) })
	wait.Go(func() { stream(t, b.Control(), a.Control(), sizes) })
	wait.Wait()
}

func manyLanes(t *testing.T, dial Dial) {
	const lanes = 12
	a, b := sessions(t, dial, lanes)
	if len(a.Lanes()) != lanes || len(b.Lanes()) != lanes {
		t.Fatalf("lanes: %d dialed, %d accepted, want %d", len(a.Lanes()), len(b.Lanes()), lanes)
	}
	var wait sync.WaitGroup
	for i := range lanes {
		wait.Go(func() { stream(t, a.Lanes()[i], b.Lanes()[i], []int{i, 50_000 + i, 200_000, i}) })
	}
	wait.Wait()
}

func largestFrames(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 1)
	stream(t, a.Lanes()[0], b.Lanes()[0], []int{transport.MaxFrame, 1, transport.MaxFrame})
	stream(t, a.Control(), b.Control(), []int{transport.MaxControl, 1, transport.MaxControl})
}

func tooLargeFrameIsNotSent(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 1)
	err := a.Lanes()[0].Send(within(t), make([]byte, transport.MaxFrame), []byte{1})
	want(t, err, transport.ErrFrameTooLarge)
	err = a.Control().Send(within(t), make([]byte, transport.MaxControl+1))
	want(t, err, transport.ErrFrameTooLarge)
	stream(t, a.Lanes()[0], b.Lanes()[0], []int{7})
	stream(t, a.Control(), b.Control(), []int{7})
}

func bytesAreCounted(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 1)
	stream(t, a.Lanes()[0], b.Lanes()[0], []int{100_000})
	stream(t, a.Control(), b.Control(), []int{10})
	const frames = 100_000 + 10 + 2*4
	if a.Sent() != frames || b.Received() != frames || a.Received() != 0 || b.Sent() != 0 {
		t.Errorf("dialer sent %d and received %d, acceptor sent %d and received %d; want %d in one direction",
			a.Sent(), a.Received(), b.Sent(), b.Received(), frames)
	}
}

func throttleHoldsRate(t *testing.T, dial Dial) {
	const rate, amount = 4 << 20, 1 << 20
	p := newPair(t, dial, nil)
	a, b := p.session(t, &transport.ConnectOptions{Lanes: 2, Throttle: transport.NewThrottle(rate)})
	start := time.Now()
	var wait sync.WaitGroup
	for i := range 2 {
		wait.Go(func() { stream(t, a.Lanes()[i], b.Lanes()[i], repeat(32<<10, amount/2/(32<<10))) })
	}
	wait.Wait()
	// The last frames leave when those before them are paid for, and a short burst is free.
	if took, least := time.Since(start), 150*time.Millisecond; took < least {
		t.Errorf("1 MiB at 4 MiB/s over two lanes took %v, want at least %v", took, least)
	}
}

func slowReaderHoldsSender(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 1)
	if sent := fill(t, a.Lanes()[0], 64<<10); sent > 64<<20 {
		t.Fatalf("%d bytes went out to a peer that reads nothing", sent)
	}
	go drain(b.Lanes()[0])
}

func unreadControlHoldsSender(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 0)
	const size = 60_000
	sent := make(chan int, 1)
	ctx, cancel := context.WithCancel(within(t))
	go func() {
		n := 0
		for ; n < 1000; n++ {
			if a.Control().Send(ctx, bytes.Repeat([]byte{byte(n)}, size)) != nil {
				break
			}
		}
		sent <- n
	}()
	time.Sleep(300 * time.Millisecond)
	select {
	case n := <-sent:
		t.Fatalf("%d control frames went out to a peer that asks for none", n)
	default:
	}
	for n := range 1000 {
		frame, err := b.Control().Recv(within(t), nil)
		if err != nil || len(frame) != size || frame[0] != byte(n) {
			t.Fatalf("frame %d: %d bytes, %v", n, len(frame), err)
		}
	}
	cancel()
	<-sent
}

func cancelWhileReceivingDoesNoHarm(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 1)
	for _, lane := range []struct{ from, to transport.Lane }{
		{a.Lanes()[0], b.Lanes()[0]},
		{a.Control(), b.Control()},
	} {
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			_, err := lane.to.Recv(ctx, nil)
			cancel()
			want(t, err, context.DeadlineExceeded)
			_, err = lane.to.Recv(ctx, nil)
			want(t, err, context.DeadlineExceeded)
		}
		stream(t, lane.from, lane.to, []int{5, 100_000})
	}
}

func cancelWhileSendingLeavesControl(t *testing.T, dial Dial) {
	a, b := sessions(t, dial, 2)
	fill(t, a.Lanes()[0], 256<<10)
	stream(t, a.Control(), b.Control(), []int{10})
	stream(t, b.Control(), a.Control(), []int{10})
	stream(t, a.Lanes()[1], b.Lanes()[1], []int{10})
}

// fill sends frames until the peer, which reads none, holds the sender up; then the sender gives up. It returns how
// much went out.
func fill(t *testing.T, lane transport.Lane, size int) int {
	t.Helper()
	frame := make([]byte, size)
	for sent := 0; ; sent += size {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := lane.Send(ctx, frame)
		cancel()
		if err != nil {
			want(t, err, context.DeadlineExceeded)
			return sent
		}
		if sent > 1<<30 {
			t.Fatal("nothing holds the sender up")
		}
	}
}

func drain(lane transport.Lane) {
	var buf []byte
	for {
		var err error
		if buf, err = lane.Recv(context.Background(), buf); err != nil {
			return
		}
	}
}

// stream sends frames of these sizes, in parts, and checks each at the other end. It may run outside the test's
// goroutine.
func stream(t *testing.T, from, to transport.Lane, sizes []int) {
	t.Helper()
	ctx := within(t)
	failed := make(chan error, 1)
	go func() {
		for i, size := range sizes {
			if err := from.Send(ctx, split(content(i, size))...); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	var buf []byte
	for i, size := range sizes {
		var err error
		if buf, err = to.Recv(ctx, buf); err != nil {
			t.Errorf("receive frame %d of %d bytes: %v", i, size, err)
			break
		}
		if !bytes.Equal(buf, content(i, size)) {
			t.Errorf("frame %d: %d bytes are not the %d that were sent", i, len(buf), size)
		}
	}
	if err := <-failed; err != nil {
		t.Errorf("send: %v", err)
	}
}

// content is what frame i of so many bytes holds.
func content(i, size int) []byte {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], uint64(i)<<32|uint64(size))
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	return b
}

// split cuts a frame in uneven parts, an empty one among them.
func split(b []byte) [][]byte {
	third, half := len(b)/3, len(b)/2
	return [][]byte{b[:third], nil, b[third:half], b[half:]}
}

func repeat(size, times int) []int {
	sizes := make([]int, times)
	for i := range sizes {
		sizes[i] = size
	}
	return sizes
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error is %v, want %v", err, target)
	}
}
