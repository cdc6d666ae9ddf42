mkdir -p /run/sshd /root/.ssh && chmod 700 /root /root/.ssh
printf 'root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n' >/etc/shadow
ssh-keygen -q -t ed25519 -N '' -f /etc/host_key
touch /var/log/lastlog /var/log/wtmp
cp /stranger.pub /root/.ssh/authorized_keys
printf 'HostKey /etc/host_key\nPermitRootLogin prohibit-password\nPidFile none\nUsePAM no\nPrintLastLog no\nPrintMotd no\n' >/etc/sshd_config
exec /usr/sbin/sshd -D -e -f /etc/sshd_config
