package filesync

import "fmt"

// findDirty finds what is open for writing. It comes after the change log was asked, and before anything is read: a mapping that is
// made later gives the file a new ctime, and with it a place in the log, with the first write; one that ended before has been written to.
func (p *pass) findDirty() error {
	var err error
	if p.open, err = p.s.dirtyFiles(); err != nil {
		return err
	}
	p.dirty = make(map[inode]struct{}, len(p.open))
	for _, path := range p.open {
		p.mistrust(path)
	}
	p.noteOpened(p.open)
	return nil
}

// mistrust has the content at path read in this pass, and again in the next full one.
func (p *pass) mistrust(path string) {
	if id, ok := p.s.inodeAt(path); ok {
		p.dirty[id] = struct{}{}
	}
}

// noteOpened keeps what is open for writing for the delta. It can be written to through a mapping after a pass has read it, in a page
// that is dirty already, and the mapping can be gone by the delta.
func (p *pass) noteOpened(paths []string) {
	if p.s.changes != nil && p.s.changes.unmapped() {
		return
	}
	for _, path := range paths {
		p.s.opened[path] = struct{}{}
	}
}

// distrust marks what is open for writing at the end of the pass: it may go on changing without a new ctime, so its digest
// does not count next time.
func (p *pass) distrust() error {
	dirty, err := p.s.dirtyFiles()
	if err != nil {
		return err
	}
	p.noteOpened(dirty)
	for _, path := range dirty {
		id, ok := p.s.inodeAt(path)
		if !ok {
			continue
		}
		if r, ok := p.s.index.get(id); ok {
			r.flags |= flagRacy
			p.s.index.put(r)
		}
	}
	return nil
}

// dirtyFiles returns the paths whose content has to be read whatever the index says.
func (s *Source) dirtyFiles() ([]string, error) {
	if s.opt.DirtyFiles == nil {
		return nil, nil
	}
	list, err := s.opt.DirtyFiles()
	if err != nil {
		return nil, fmt.Errorf("find files open for writing: %w", err)
	}
	for _, p := range list {
		if err := checkPath(p); err != nil {
			return nil, fmt.Errorf("files open for writing: %w", err)
		}
	}
	return list, nil
}

func (s *Source) inodeAt(path string) (inode, bool) {
	dir, name := splitPath(path)
	d, err := s.root.Beneath(dir)
	if err != nil {
		return inode{}, false
	}
	defer d.Close()
	st, err := d.Stat(name)
	return inodeOf(&st), err == nil
}
