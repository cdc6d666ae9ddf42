package criu

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"
)

// Features are what CRIU says it and this kernel can do together.
type Features struct {
	MemTrack   bool // soft-dirty page tracking: pre-dump, parent images
	LazyPages  bool // userfaultfd: pages after the restore
	PidfdStore bool
}

// FeatureCheck asks for all of them. The child stays for the next request.
func (c *Client) FeatureCheck(ctx context.Context) (Features, error) {
	response, err := c.ask(ctx, "feature check", &rpc.CriuReq{
		Type: rpc.CriuReqType_FEATURE_CHECK.Enum(),
		Features: &rpc.CriuFeatures{
			MemTrack: proto.Bool(true), LazyPages: proto.Bool(true), PidfdStore: proto.Bool(true),
		},
	})
	if err != nil {
		return Features{}, err
	}
	f := response.GetFeatures()
	return Features{MemTrack: f.GetMemTrack(), LazyPages: f.GetLazyPages(), PidfdStore: f.GetPidfdStore()}, nil
}

// Version is CRIU's, like "4.2.1". The child stays for the next request.
func (c *Client) Version(ctx context.Context) (string, error) {
	response, err := c.ask(ctx, "version", &rpc.CriuReq{Type: rpc.CriuReqType_VERSION.Enum()})
	if err != nil {
		return "", err
	}
	v := response.GetVersion()
	text := fmt.Sprintf("%d.%d", v.GetMajorNumber(), v.GetMinorNumber())
	if v.GetSublevel() != 0 {
		text += fmt.Sprintf(".%d", v.GetSublevel())
	}
	return text, nil
}

// CPUInfoDump writes this machine's CPU features to cpuinfo.img in dir. The child stays for the next request.
func (c *Client) CPUInfoDump(ctx context.Context, dir string) error {
	return c.cpuInfo(ctx, rpc.CriuReqType_CPUINFO_DUMP, "cpuinfo dump", dir)
}

// CPUInfoCheck compares cpuinfo.img in dir with this machine. An *Error: a process from there would miss instructions
// here, and die of SIGILL at some time after its restore.
func (c *Client) CPUInfoCheck(ctx context.Context, dir string) error {
	return c.cpuInfo(ctx, rpc.CriuReqType_CPUINFO_CHECK, "cpuinfo check", dir)
}

func (c *Client) cpuInfo(ctx context.Context, kind rpc.CriuReqType, op, dir string) (err error) {
	call := &Call{client: c, op: op}
	request := &Request{ImagesDir: dir, LogFile: "cpuinfo.log", Options: &Options{}}
	if err := call.open(request); err != nil {
		return errors.Join(fmt.Errorf("criu %s: %w", op, err), call.release())
	}
	defer func() { err = errors.Join(err, call.release()) }()
	request.Options.NotifyScripts = nil
	if err := c.send(ctx, &rpc.CriuReq{Type: kind.Enum(), Opts: request.Options, KeepOpen: proto.Bool(true)}); err != nil {
		return fmt.Errorf("criu %s: %w", op, err)
	}
	response, _, err := c.receive(ctx)
	if err != nil {
		return call.explain(err, 0)
	}
	if !response.GetSuccess() {
		return call.explain(errors.New(response.GetCrErrmsg()), syscall.Errno(response.GetCrErrno()))
	}
	return nil
}

// ask is a request without a log or notifications.
func (c *Client) ask(ctx context.Context, op string, request *rpc.CriuReq) (*rpc.CriuResp, error) {
	request.KeepOpen = proto.Bool(true)
	if err := c.send(ctx, request); err != nil {
		return nil, fmt.Errorf("criu %s: %w", op, err)
	}
	response, _, err := c.receive(ctx)
	if err != nil {
		return nil, fmt.Errorf("criu %s: %w", op, err)
	}
	if !response.GetSuccess() {
		return nil, &Error{Op: op, Cause: response.GetCrErrmsg(), Errno: syscall.Errno(response.GetCrErrno())}
	}
	return response, nil
}
