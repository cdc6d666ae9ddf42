exec memcached -u nobody -m 64 -t 4 -l 0.0.0.0
