# The state is made anew in the container, as an image's first start does.
mkdir -p /var/lib/pg /run/postgresql && ln -s /run /var/run && chown postgres /var/lib/pg /run/postgresql
as="setpriv --reuid postgres --regid postgres --clear-groups"
bin=$(echo /usr/lib/postgresql/*/bin)
$as $bin/initdb -D /var/lib/pg -A trust >/dev/null
echo 'host all all 0.0.0.0/0 trust' >>/var/lib/pg/pg_hba.conf
exec $as $bin/postgres -D /var/lib/pg -c listen_addresses='*' -c shared_buffers=64MB -c max_wal_size=64MB -c min_wal_size=32MB \
	-c checkpoint_timeout=30s -c autovacuum_naptime=1s
