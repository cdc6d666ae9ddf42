mkdir -p /var/log/nginx /var/lib/nginx /var/www
echo hello >/var/www/index.html
head -c 30000000 /dev/urandom >/var/www/large
sha256sum </var/www/large >/var/www/large.sum
cat >/etc/nginx.conf <<'CONF'
user nobody nogroup;
worker_processes 2;
daemon off;
error_log stderr;
pid /tmp/nginx.pid;
events { worker_connections 512; }
http {
	access_log /var/log/nginx/access.log;
	keepalive_requests 1000000;
	sendfile on;
	server { listen 80; root /var/www; }
}
CONF
exec nginx -c /etc/nginx.conf
