package preflight

const (
	syscallUserfaultfd = 282
	syscallMemfdCreate = 279
	syscallEventfd2    = 19
	syscallMqOpen      = 180
	syscallMqUnlink    = 181
)
