mkdir -p /var/lib/rabbitmq /var/log/rabbitmq && chown rabbitmq /var/lib/rabbitmq /var/log/rabbitmq
export HOME=/var/lib/rabbitmq HOSTNAME=localhost RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_CONF_ENV_FILE=/nonexistent
printf 'default_user = test\ndefault_pass = test\nloopback_users = none\nlisteners.tcp.default = 5672\n' >/etc/rabbit.conf
printf '127.0.0.1 localhost\n' >/etc/hosts
export RABBITMQ_CONFIG_FILE=/etc/rabbit.conf
exec setpriv --reuid rabbitmq --regid rabbitmq --clear-groups sh -c 'exec /usr/lib/rabbitmq/bin/rabbitmq-server'
