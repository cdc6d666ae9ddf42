cat >/etc/supervisord.conf <<'CONF'
[supervisord]
nodaemon=true
user=root
logfile=/tmp/supervisord.log
pidfile=/tmp/supervisord.pid
[unix_http_server]
file=/tmp/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix:///tmp/supervisor.sock
[program:lines]
command=perl /lines.pl
[program:redis]
command=redis-server --port 6379 --appendonly yes --dir /var --protected-mode no
[program:cron]
command=sh -c 'while date; do sleep 0.1; ls -l / | sort | tail -n 3; done'
[program:short]
command=sleep 3
CONF
exec supervisord -c /etc/supervisord.conf
