package preflight

const (
	syscallUserfaultfd = 323
	syscallMemfdCreate = 319
	syscallEventfd2    = 290
	syscallMqOpen      = 240
	syscallMqUnlink    = 241
)
