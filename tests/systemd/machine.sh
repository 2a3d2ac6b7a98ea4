# The inside of machine.py: `machine.sh outer BASE LAYER` makes namespaces, `machine.sh inner BASE LAYER` fills them
# and becomes systemd. Exit status 77: this machine cannot do it, and the last line says what failed.
set -eu
base=$2 layer=$3 cgroup=$2/cgroup/waD-test.$$

cannot() { echo "$*"; exit 77; }

outer() {
  mount -t tmpfs -o size=2g,mode=755 tmpfs "$base" || cannot "no tmpfs can be mounted"
  mkdir "$base/cgroup" "$base/up" "$base/work" "$base/root"
  mount -t cgroup2 none "$base/cgroup" || cannot "no cgroup2 can be mounted"
  # A cgroup namespace of its own: a systemd that shared the host's tree would take it over.
  home=$base/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
  [ -d "$home" ] || home=$base/cgroup
  mkdir "$cgroup" && echo $$ >"$cgroup/cgroup.procs" || cannot "no cgroup can be made"
  status=0
  unshare --fork --kill-child --pid --mount --uts --ipc --cgroup --propagation private sh "$0" inner "$base" "$layer" || status=$?
  echo $$ >"$home/cgroup.procs"
  find "$cgroup" -depth -type d -exec rmdir {} +
  exit $status
}

inner() {
  root=$base/root
  mount -t overlay overlay -o "lowerdir=/,upperdir=$base/up,workdir=$base/work" "$root" || cannot "no overlay can be mounted"
  # Not "$layer/.": its own mode is not that of a root directory.
  for part in "$layer"/*; do [ ! -e "$part" ] || cp -a "$part" "$root/"; done
  mount -t proc proc "$root/proc" || cannot "no proc can be mounted"
  mount -t sysfs sysfs "$root/sys" || cannot "no sysfs can be mounted"
  mount -t cgroup2 none "$root/sys/fs/cgroup" || cannot "no cgroup2 can be mounted inside"
  for name in run tmp var/tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$name"; done
  chmod 1777 "$root/tmp" "$root/var/tmp"
  mkdir -p "$root/run/lock" "$root/dev/pts" "$root/dev/shm"
  for name in null zero full random urandom tty; do : >"$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
  ln -s pts/ptmx "$root/dev/ptmx"; ln -s /proc/self/fd "$root/dev/fd"
  # Nothing of the host's services, disks and journals: only what the test starts, and what that requires.
  rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/system/*.requires "$root"/usr/lib/systemd/system/*.wants \
    "$root"/etc/systemd/system/default.target "$root/etc/fstab" "$root/var/log/journal" "$root/var/lib/waD"
  printf '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\nAfter=systemd-journald.service\n' \
    >"$root/etc/systemd/system/waD-test.target"
  export container=private
  cd "$root"
  mkdir -p run/host
  pivot_root . run/host || cannot "the root cannot be changed"
  # As systemd expects of whoever starts it in a container: credentials reach a service by propagation.
  exec chroot . sh -c 'umount -l /run/host && rmdir /run/host && mount --make-rshared / && exec /lib/systemd/systemd --system --log-target=journal \
    --log-level=notice --show-status=false --unit=waD-test.target'
}

"$1"
