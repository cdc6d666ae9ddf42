package initproc

import "golang.org/x/sys/unix"

// exec becomes a further program of a running container, whose namespaces the C stage has joined.
func (p *process) exec() error {
	if err := p.joinKeyring(); err != nil {
		return err
	}
	if err := p.openTerminal(nil); err != nil {
		return err
	}
	unix.Umask(0o022)
	if err := p.setAttributes(); err != nil {
		return err
	}
	if err := p.ready(); err != nil {
		return err
	}
	if err := applyProfile(p.Process.ApparmorProfile); err != nil {
		return err
	}
	path, err := p.dropRights()
	if err != nil {
		return err
	}
	p.log.Debug("setns_init: about to exec", "path", path)
	if err := p.closeChannels(); err != nil {
		return err
	}
	return p.become(path)
}
