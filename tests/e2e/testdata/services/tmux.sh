export LANG=C.UTF-8 TERM=screen
tmux new-session -d -s work 'n=0; while sleep 0.01; do n=$((n + 1)); echo $n >/tmp/loop; echo line $n; done'
tmux split-window -t work 'top -d 0.3 || cat'
exec perl /lines.pl
