use strict; use IO::Socket::INET; use Digest::MD5 qw(md5_hex);
$| = 1; $SIG{CHLD} = 'IGNORE';
my $server = IO::Socket::INET->new(LocalPort => 7000, Listen => 20, ReuseAddr => 1) or die;
while (1) {
	my $c = $server->accept or next;
	next if fork;
	my ($n, %words) = (0);
	while (<$c>) {
		$n++;
		$words{$_} = md5_hex($_) for map { $n * 10 + $_ } 0 .. 9;
		delete $words{$_} for map { ($n - 500) * 10 + $_ } 0 .. 9;
		for (keys %words) { $words{$_} eq md5_hex($_) or print $c "bad $_\n" }
		print $c "ok $n\n";
	}
	exit;
}
