cat >/tmp/loop.sh <<'SH'
n=0
while true; do
	n=$((n + 1))
	got=$(seq 1 200 | sort -n | tail -n 1 | tr 0-9 a-j | cat)
	[ "$got" = caa ] || echo "bad $n $got" >>/tmp/bad
	sort -n <(seq 1 100 | tac) | cmp - <(seq 1 100) || echo "bad $n cmp" >>/tmp/bad
	echo $n >/tmp/loop.new && mv /tmp/loop.new /tmp/loop
done
SH
bash /tmp/loop.sh &
exec tini -g -- perl /lines.pl
