package preflight

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// Subject is the container whose processes are looked at.
type Subject struct {
	Pids   []int             // all of them
	Init   int               // the first
	Binds  map[string]string // bind mounts that do not travel: destination in the container, source on the host
	Host   bool              // it shares the host's network
	Path   bool              // its network namespace has a path
	Keeps  bool              // its TCP connections are to be kept, whatever comes along
	Closes bool              // they are to be closed

	Now func() ([]int, error) // Pids as they are later; nil: they stay

	Cgroups map[string]string // the directories of its cgroup by controller; "" is cgroup v2
	Tmpfs   []string          // destinations of the file systems in memory that are its own

	Ahead  map[[2]uint64]uint64 // deleted files that travel before it stands still, by device and inode: bytes on the disk
	Reread uint64               // of them, those that somebody can write to: they are read again while it stands still
}

// Needs are what the container takes from the host that it is on, as far as a peer can lack it.
type Needs struct {
	Processes, Threads int
	Memory             uint64   // bytes that it has of memory and swap, without what can be read again from files
	Copied             uint64   // of them, what CRIU copies while it stands still
	PipeSize           int      // of the largest pipe, in bytes
	Labels             []string // AppArmor's or SELinux's
	Addresses          []string // that its sockets are bound to, where those may not come along
	Files              []File   // open or mapped, that do not travel
}

// Scan looks at every process. It takes about half a millisecond of processor time for each, on all processors at once.
func Scan(ctx context.Context, s *Subject) (*Needs, Findings, error) {
	processes, err := readAll(ctx, s.Pids)
	if err != nil {
		return nil, nil, err
	}
	c := &container{subject: s, processes: processes}
	c.readMounts()
	needs := &Needs{Processes: len(processes)}
	strangers, findings := c.judgeTree()
	init := c.init()
	for _, p := range processes {
		needs.add(p)
		if strangers[p.pid] {
			continue
		}
		findings = append(findings, p.judge(init)...)
		findings = append(findings, p.judgeMappings()...)
		findings = append(findings, p.judgeDescriptors(c.ids)...)
		findings = append(findings, p.judgeSockets()...)
		findings = append(findings, c.judgeWatches(ctx, p)...)
	}
	unix, err := c.judgeUnix(ctx)
	if err != nil {
		return nil, nil, err
	}
	findings = append(findings, unix...)
	copied, bytes := c.judgeCopied()
	findings = append(findings, copied...)
	deleted, ghosts := c.judgeGhosts()
	findings = append(findings, deleted...)
	bytes += ghosts
	needs.Copied = bytes
	needs.Memory = max(c.memory(), bytes)
	if s.Host || s.Path {
		needs.Addresses = c.addresses()
	}
	findings = append(findings, c.judgeConnections()...)
	findings = append(findings, c.judgeLeases()...)
	needs.Files = c.files()
	slices.Sort(needs.Labels)
	needs.Labels = slices.Compact(needs.Labels)
	return needs, onceEach(findings), nil
}

// readAll reads the processes, those that end meanwhile left out.
func readAll(ctx context.Context, pids []int) ([]*proc, error) {
	found := make([]*proc, len(pids))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, pid := range pids {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p, err := readSettled(pid)
			if errors.Is(err, errEnded) {
				return nil
			}
			found[i] = p
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(p *proc) bool { return p == nil }), nil
}

// What does not last is looked at again: most waits for a disk are short, and the first thread of a process that just ends may
// be gone before the others.
const (
	stillWaiting = 20 * time.Millisecond
	stillEnding  = 50 * time.Millisecond
	endingLooks  = 2
)

// readSettled reads a process, and again if what it is in may only be passing.
func readSettled(pid int) (*proc, error) {
	p, err := readProcess(pid)
	if err == nil && p.state == 'D' {
		time.Sleep(stillWaiting)
		p, err = readProcess(pid)
	}
	for range endingLooks {
		if err != nil || p.state != 'Z' {
			break
		}
		time.Sleep(stillEnding)
		p, err = readProcess(pid)
	}
	return p, err
}

// container is a subject that has been read.
type container struct {
	subject   *Subject
	processes []*proc
	mounts    map[string]mount // by their ids, of all mount namespaces in it
	ids       map[string]bool
}

// init is the first process; when that has just ended, any.
func (c *container) init() *proc {
	for _, p := range c.processes {
		if p.pid == c.subject.Init {
			return p
		}
	}
	return &proc{}
}

func (n *Needs) add(p *proc) {
	n.Threads += p.threads
	for i := range p.descriptors {
		n.PipeSize = max(n.PipeSize, p.descriptors[i].pipe)
	}
	if p.label != "" && p.label != "unconfined" {
		n.Labels = append(n.Labels, p.label)
	}
}

// judgeTree finds processes that are no descendants of init: CRIU does not see them, and they end with the container.
func (c *container) judgeTree() (strangers map[int]bool, f Findings) {
	members := make(map[int]*proc)
	for _, p := range c.processes {
		members[p.pid] = p
	}
	strangers = make(map[int]bool)
	if members[c.subject.Init] == nil {
		return strangers, nil
	}
	for _, p := range c.processes {
		top := p
		for steps := 0; top.pid != c.subject.Init && members[top.parent] != nil && steps < len(members); steps++ {
			top = members[top.parent]
		}
		if top.pid != c.subject.Init {
			strangers[p.pid] = true
			f = append(f, p.finding(Warning, Unrelated, "wait until it has ended, or have a process of the container start it",
				"was started from outside (by exec) and does not move: it ends here"))
		}
	}
	return strangers, f
}

// onceEach leaves out what would be said of one process twice, but for the number of a descriptor.
func onceEach(f Findings) Findings {
	type key struct {
		code string
		pid  int
		text string
	}
	count, seen := make(map[key]int), make(map[Finding]bool)
	var out Findings
	for _, finding := range f {
		k := key{finding.Code, finding.Pid, ""}
		if finding.Pid == 0 {
			k.text = finding.Text
		}
		count[k]++
		const enough = 3 // of a kind and a process
		if count[k] <= enough && !seen[finding] {
			seen[finding] = true
			out = append(out, finding)
		}
	}
	return out
}
