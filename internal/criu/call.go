package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"google.golang.org/protobuf/proto"
)

// Notification is a point at which CRIU stands and waits for an answer. Scripts of a dump, in order: pre-dump (tasks still
// run), network-lock, query-ext-files, [network-unlock on a rollback or with leave_running], post-dump. Of a restore:
// setup-namespaces, post-setup-namespaces, orphan-pts-master, post-restore, network-unlock, pre-resume, post-resume.
type Notification struct {
	Script string
	Pid    int        // of the tree's root, in this process's pid namespace: setup-namespaces and post-restore only
	Files  []*os.File // orphan-pts-master: the pty's master. The receiver closes them
}

// Call is one request under way.
type Call struct {
	client *Client
	op     string
	log    string   // path of CRIU's log
	dir    *os.File // what images_dir_fd names in this process: CRIU opens /proc/<peer>/fd/N
	work   *os.File
	refuse error // why a notification was answered false; the cause if CRIU fails then
	pid    int
	ended  bool
}

// Request is a dump or a restore.
type Request struct {
	ImagesDir string
	WorkDir   string // of logs and sockets; ImagesDir when empty
	LogFile   string // in WorkDir
	Options   *Options
}

// Dump starts dumping. The child ends with the call.
func (c *Client) Dump(ctx context.Context, r *Request) (*Call, error) {
	return c.begin(ctx, rpc.CriuReqType_DUMP, "dump", r)
}

// PreDump starts writing memory only, of tasks that run on afterwards.
func (c *Client) PreDump(ctx context.Context, r *Request) (*Call, error) {
	return c.begin(ctx, rpc.CriuReqType_SINGLE_PRE_DUMP, "pre-dump", r)
}

// Restore starts making the tasks.
func (c *Client) Restore(ctx context.Context, r *Request) (*Call, error) {
	return c.begin(ctx, rpc.CriuReqType_RESTORE, "restore", r)
}

func (c *Client) begin(ctx context.Context, kind rpc.CriuReqType, op string, r *Request) (*Call, error) {
	call := &Call{client: c, op: op}
	if err := call.open(r); err != nil {
		return nil, errors.Join(fmt.Errorf("criu %s: %w", op, err), call.release())
	}
	if err := c.send(ctx, &rpc.CriuReq{Type: kind.Enum(), Opts: r.Options}); err != nil {
		return nil, errors.Join(fmt.Errorf("criu %s: %w", op, err), call.release())
	}
	return call, nil
}

// open fills in what belongs to the request's directories.
func (k *Call) open(r *Request) (err error) {
	if k.dir, err = os.Open(r.ImagesDir); err != nil {
		return fmt.Errorf("open image directory: %w", err)
	}
	o := r.Options
	o.ImagesDirFd = proto.Int32(int32(k.dir.Fd()))
	o.LogFile = proto.String(r.LogFile)
	o.NotifyScripts = proto.Bool(true)
	if o.LogLevel == nil {
		o.LogLevel = proto.Int32(4)
	}
	logDir := r.ImagesDir
	if r.WorkDir != "" {
		logDir = r.WorkDir
		if k.work, err = os.Open(r.WorkDir); err != nil {
			return fmt.Errorf("open work directory: %w", err)
		}
		o.WorkDirFd = proto.Int32(int32(k.work.Fd()))
	}
	k.log = filepath.Join(logDir, r.LogFile)
	if target, err := os.Readlink(k.log); err == nil { // the caller wants it elsewhere
		k.log = target
	}
	// An old log would explain a failure that comes before CRIU opens its own.
	if err := os.Remove(k.log); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old log: %w", err)
	}
	return nil
}

func (k *Call) release() error {
	var err error
	for _, f := range []*os.File{k.dir, k.work} {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	k.dir, k.work = nil, nil
	return err
}

// Next waits for the next notification; every one must be answered before Next is called again. io.EOF: the request
// succeeded. After any error the call is over and the child reaped. When ctx ends first the child is killed: a dump that is
// killed leaves its tasks as they are, so refuse a notification instead where there is time.
func (k *Call) Next(ctx context.Context) (*Notification, error) {
	if k.ended {
		return nil, io.EOF
	}
	response, files, err := k.client.receive(ctx)
	if err != nil {
		return nil, k.end(k.explain(err, 0))
	}
	if response.GetType() == rpc.CriuReqType_NOTIFY {
		n := response.GetNotify()
		k.client.log.Debug("criu notification", "op", k.op, "script", n.GetScript(), "pid", n.GetPid())
		return &Notification{Script: n.GetScript(), Pid: int(n.GetPid()), Files: files}, nil
	}
	k.pid = int(response.GetRestore().GetPid())
	if !response.GetSuccess() {
		return nil, k.end(k.explain(errors.New(response.GetCrErrmsg()), syscall.Errno(response.GetCrErrno())))
	}
	if err := k.end(nil); err != nil {
		return nil, err
	}
	return nil, io.EOF
}

// Accept lets CRIU go on.
func (k *Call) Accept(ctx context.Context) error {
	return k.answer(ctx, true)
}

// Refuse makes CRIU undo what it did and fail; cause becomes part of the error that a later Next returns. Scripts that
// CRIU does not listen to (pre-resume, network-unlock) go on all the same.
func (k *Call) Refuse(ctx context.Context, cause error) error {
	k.refuse = errors.Join(k.refuse, cause)
	return k.answer(ctx, false)
}

func (k *Call) answer(ctx context.Context, ok bool) error {
	err := k.client.send(ctx, &rpc.CriuReq{Type: rpc.CriuReqType_NOTIFY.Enum(), NotifySuccess: proto.Bool(ok)})
	if err != nil {
		return k.end(k.explain(err, 0))
	}
	return nil
}

// RootPid is the restored tree's root in this process's pid namespace, once the call is over, also after a failure: killed
// or not, it is a child of this process when rst_sibling was asked for. 0 when there was none.
func (k *Call) RootPid() int {
	if k.pid > 0 {
		return k.pid
	}
	// A CRIU that was killed has not answered. Its log tells.
	log, err := os.ReadFile(k.log)
	if err != nil {
		return 0
	}
	// How CRIU logs every process that it makes, the root first: "PID: real 4711 virt 1".
	match := regexp.MustCompile(`PID: real (\d+) virt \d+`).FindSubmatch(log)
	if match == nil {
		return 0
	}
	pid, err := strconv.Atoi(string(match[1]))
	if err != nil {
		return 0
	}
	return pid
}

// end finishes the call: the child exits by itself after its last answer.
func (k *Call) end(err error) error {
	if k.ended {
		return err
	}
	k.ended = true
	return errors.Join(err, k.client.end(exitGrace), k.release())
}

// explain makes the *Error of a failed call.
func (k *Call) explain(err error, errno syscall.Errno) error {
	if k.refuse != nil {
		return fmt.Errorf("criu %s: %w", k.op, k.refuse)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("criu %s: %w", k.op, err) // the log only shows what its death did
	}
	e := &Error{Op: k.op, LogPath: k.log, Errno: errno, err: err}
	e.Cause = Cause(k.log)
	if e.Cause == "" {
		e.Cause = err.Error()
	}
	e.Hint = Hint(e.Cause)
	return e
}
