cd /var
exec redis-server --appendonly yes --appendfsync everysec --protected-mode no --enable-debug-command yes --auto-aof-rewrite-min-size 1mb
