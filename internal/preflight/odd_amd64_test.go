package preflight

const (
	syscallUserfaultfd = 323
	syscallMemfdCreate = 319
)
