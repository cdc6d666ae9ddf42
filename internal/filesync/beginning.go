package filesync

// beginning returns the first chunks of a file when they are what the peer has: all that came of it before the link broke.
func beginning(list []Digest, digest Digest) *base {
	var sum summer
	sum.reset()
	for i, d := range list {
		sum.add(d)
		if sum.sum() == digest {
			return &base{digest: digest, chunks: list[:i+1]}
		}
	}
	return nil
}

// expect remembers that a file was about to be sent: should the link break, the next pass looks for its beginning.
func (p *pass) expect(n *node, rec *record) {
	r := newRecord(&n.st)
	r.name, r.epoch, r.flags = rec.name, rec.epoch, flagRacy|flagNoDigest
	p.s.index.put(r)
}
