package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kinds is a process with every kind of memory that a program can have, all of it under change, and children that have
// copies of it:
//
//	kinds -- areas                   page.go, area.go; made in private.go, shared.go
//	      -- the mate                a fork that lives as long; both write what they share, and each its copy of the rest
//	      -- forks that pass         each verifies its copy, writes it, sleeps, verifies it again
//	      -- a child that execs      itself, again and again, each time with new memory to verify
//	      -- a child by vfork        which does nothing, and the next
//	      -- threads that stay       each with a stack that is verified
//	      -- threads that pass       likewise
type kinds struct {
	kindsOptions
	mu      sync.Mutex
	areas   []*area
	moving  *area // remapped all the time
	passing *area // unmapped and mapped anew all the time
	guard   []byte
	pipe    [2]int // for the guard's pages: it has a byte to give, and room
	reports *[reports]fault
	mate    *mateEnds
	threads []chan uint64
	asked   uint64
	heirs   heirs
	failed  error
}

type kindsOptions struct {
	rate      int    // pages written a second
	megabytes int    // of the larger areas
	small     int    // areas of one page
	forks     int    // that pass, at a time
	dir       string // for files on the file system of the root
	shm       string // for files in memory
	without   kindList
}

// kindList is kinds by name.
type kindList []string

func (l *kindList) String() string { return fmt.Sprint([]string(*l)) }

func (l *kindList) Set(name string) error {
	*l = append(*l, name)
	return nil
}

const reports = 64

func kindsFlags(args []string) kindsOptions {
	var o kindsOptions
	flags := flag.NewFlagSet("kinds", flag.ExitOnError)
	flags.IntVar(&o.rate, "rate", 2000, "pages written a second")
	flags.IntVar(&o.megabytes, "megabytes", 4, "size of the larger areas")
	flags.IntVar(&o.small, "small", 2000, "areas of one page")
	flags.IntVar(&o.forks, "forks", 2, "forked children at a time")
	flags.StringVar(&o.dir, "dir", "/data", "for mapped files")
	flags.StringVar(&o.shm, "shm", "/dev/shm", "for mapped files in memory")
	flags.Var(&o.without, "without", "a kind to go without (repeated)")
	_ = flags.Parse(args)
	return o
}

func startKinds(o kindsOptions) (*kinds, error) {
	k := &kinds{kindsOptions: o}
	memory, err := unix.MmapPtr(-1, 0, nil, reports*unsafe.Sizeof(fault{}), readWrite, unix.MAP_SHARED|unix.MAP_ANON)
	if err != nil {
		return nil, err
	}
	k.reports = (*[reports]fault)(memory)
	if err := k.makeAreas(); err != nil {
		return nil, err
	}
	if k.guard, err = unix.Mmap(-1, 0, 4*pageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON); err != nil {
		return nil, err
	}
	if err := unix.Pipe2(k.pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	if _, err := unix.Write(k.pipe[1], []byte{0}); err != nil {
		return nil, err
	}
	if k.mate, err = k.startMate(); err != nil {
		return nil, fmt.Errorf("fork mate: %w", err)
	}
	for range 4 {
		k.threads = append(k.threads, stackThread())
	}
	if err := k.startHeirs(); err != nil {
		return nil, fmt.Errorf("start the child that execs: %w", err)
	}
	for n := range o.forks {
		go k.keepForking(passing + n)
	}
	go k.churn()
	go k.passThreads()
	go comeAndGo(k.fail)
	return k, nil
}

// wants says whether the workload is to have a kind.
func (k *kinds) wants(kind string) bool { return !slices.Contains(k.without, kind) }

func (k *kinds) fail(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failed = errors.Join(k.failed, err)
}

// churn writes pages, and changes areas now and then.
func (k *kinds) churn() {
	owed := 0.0
	last := time.Now()
	for {
		time.Sleep(time.Millisecond)
		now := time.Now()
		// A pause of the whole container is not made up for.
		owed += float64(k.rate) * min(now.Sub(last), 20*time.Millisecond).Seconds()
		last = now
		k.mu.Lock()
		for ; owed >= 1; owed-- {
			k.rewrite(rand.IntN(1 << 30))
		}
		if err := k.reshape(); err != nil && k.failed == nil {
			k.failed = err
		}
		k.mu.Unlock()
	}
}

// rewrite writes one page of any area: one in two goes to any page alike, the others to any area alike.
func (k *kinds) rewrite(n int) {
	a := k.areas[n%len(k.areas)]
	if n%2 == 0 {
		a = k.areas[n%min(len(k.areas), 24)] // the small ones are the last
	}
	i := rand.IntN(len(a.versions))
	if a.constant || !a.owns(i, parent) || !a.open() {
		return
	}
	a.write(i)
	a.shut()
}

// reshape does one thing that changes what is mapped, about a hundred times a second.
func (k *kinds) reshape() error {
	switch rand.IntN(40) {
	case 0:
		return k.punch(unix.MADV_DONTNEED)
	case 1:
		return k.punch(unix.MADV_FREE)
	case 2:
		return remap(k.moving)
	case 3:
		return renew(k.passing)
	}
	return nil
}

func (k *kinds) punch(advice uintptr) error {
	a := k.areas[rand.IntN(len(k.areas))]
	for !a.holes {
		a = k.areas[rand.IntN(len(k.areas))]
	}
	from := rand.IntN(len(a.versions))
	to := min(from+1+rand.IntN(16), len(a.versions))
	if !a.drop(from, to, advice) {
		return fmt.Errorf("advice %d for %s is refused", advice, a.kind)
	}
	return nil
}

// check stops the mate, verifies all that both have, and asks whoever keeps memory of its own.
func (k *kinds) check() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed != nil {
		return k.failed
	}
	if err := k.verify(); err != nil {
		return err
	}
	return errors.Join(k.checkGuard(), k.checkThreads(), k.heirs.check())
}

func (k *kinds) verify() (err error) {
	answer, err := k.mate.ask(hold)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, k.mate.tell(goOn)) }()
	if answer == bad {
		return k.tell(mate)
	}
	for _, a := range k.areas {
		if !a.right(parent, &k.reports[parent]) {
			return k.tell(parent)
		}
	}
	return nil
}

func (k *kinds) tell(who int) error {
	f := &k.reports[who]
	if f.found == 0 {
		return fmt.Errorf("child %d says that its memory is wrong, and not where", who)
	}
	at := slices.IndexFunc(k.areas, func(a *area) bool { return a.number == f.area })
	if at < 0 {
		return fmt.Errorf("child %d tells of area %d, which there is not", who, f.area)
	}
	return k.areas[at].tell(f, who)
}

// checkGuard: pages without permission are neither read nor written, by the kernel on our behalf either.
func (k *kinds) checkGuard() error {
	if n, err := unix.Write(k.pipe[1], k.guard[pageSize:2*pageSize]); !errors.Is(err, unix.EFAULT) {
		return fmt.Errorf("a guard page is read: %d, %w", n, err)
	}
	if n, err := unix.Read(k.pipe[0], k.guard[pageSize:2*pageSize]); !errors.Is(err, unix.EFAULT) {
		return fmt.Errorf("a guard page is written: %d, %w", n, err)
	}
	return nil
}
