mkdir -p /var/log/nginx /var/lib/nginx /var/www /var/count && chown nobody /var/count
cat >/var/www/count.php <<'PHP'
<?php
$f = fopen("/var/count/" . intval($_GET["client"]), "c+");
flock($f, LOCK_EX);
$n = intval(fread($f, 100)) + 1;
rewind($f); fwrite($f, strval($n)); fclose($f);
for ($i = 0, $words = []; $i < 2000; $i++) { $words[] = md5($i); }
echo "ok $n";
PHP
cat >/etc/fpm.conf <<'CONF'
[global]
error_log = /proc/self/fd/2
daemonize = no
[www]
user = nobody
group = nogroup
listen = /run/php.sock
listen.owner = nobody
pm = dynamic
pm.max_children = 8
pm.start_servers = 2
pm.min_spare_servers = 1
pm.max_spare_servers = 3
pm.max_requests = 200
CONF
cat >/etc/nginx.conf <<'CONF'
user nobody nogroup;
worker_processes 2;
error_log stderr;
pid /tmp/nginx.pid;
events { worker_connections 512; }
http {
	access_log off;
	keepalive_requests 1000000;
	server {
		listen 80;
		root /var/www;
		location ~ \.php$ {
			include /etc/nginx/fastcgi_params;
			fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
			fastcgi_pass unix:/run/php.sock;
		}
	}
}
CONF
nginx -c /etc/nginx.conf
exec $(echo /usr/sbin/php-fpm*) -y /etc/fpm.conf
