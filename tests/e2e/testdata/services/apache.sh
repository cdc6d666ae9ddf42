mkdir -p /var/log/apache2 /var/www /run/apache2
echo hello >/var/www/index.html
head -c 30000000 /dev/urandom >/var/www/large
sha256sum </var/www/large >/var/www/large.sum
m=/usr/lib/apache2/modules
cat >/etc/httpd.conf <<CONF
ServerName x
ServerRoot /var
PidFile /run/apache2/httpd.pid
LoadModule mpm_event_module $m/mod_mpm_event.so
LoadModule authz_core_module $m/mod_authz_core.so
LoadModule dir_module $m/mod_dir.so
User nobody
Group nogroup
Listen 80
DocumentRoot /var/www
DirectoryIndex index.html
ErrorLog /var/log/apache2/error.log
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 60
<Directory /var/www>
Require all granted
</Directory>
CONF
exec apache2 -f /etc/httpd.conf -DFOREGROUND
