mkdir -p /var/lib/db /run/mysqld /tmp && chown mysql /var/lib/db /run/mysqld
mariadb-install-db --no-defaults --force --user=mysql --datadir=/var/lib/db --auth-root-authentication-method=normal >/tmp/install.log || cat /tmp/install.log
cat >/tmp/init.sql <<'SQL'
create database if not exists test;
create user test@'%';
grant all on test.* to test@'%';
SQL
exec mariadbd --no-defaults --user=mysql --datadir=/var/lib/db --socket=/run/mysqld/mysqld.sock --init-file=/tmp/init.sql \
	--innodb-buffer-pool-size=64M --skip-name-resolve --innodb-use-native-aio=0
