package preflight

const (
	syscallUserfaultfd = 282
	syscallMemfdCreate = 279
)
