# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What the scripts of .deb and .rpm have in common; each is this and a few lines that call it. Plain sh.
set -e

units='sluice-boot.service sluice.service'

# Not so in an image that is being built.
is_running() { [ -d /run/systemd/system ]; }

complain() { echo "sluice: $*" >&2; }

# Enabled as presets say, and not started: settings are put in force before what starts pods, and what is installed
# while an image is made must not leave the builder's settings in it.
installed() {
  # shellcheck disable=SC2086  # two words
  systemctl preset $units || complain "systemctl preset $units did not work"
  if is_running; then
    systemctl daemon-reload
    complain "installed; in force with the next boot, or after: systemctl start sluice"
  fi
}

# Limits stay in force meanwhile: programs, maps and qdiscs are the kernel's, and the new agent puts new programs in the
# place of old ones. First the plugin and the settings, then the agent. What was not started stays so.
upgraded() {
  is_running || return 0
  systemctl daemon-reload
  for unit in $units; do
    [ "$(systemctl is-active "$unit")" = inactive ] || systemctl restart "$unit" ||
      complain "$unit has not come up again; what was in force is: journalctl -u $unit"
  done
  # An agent keeps the sockets that it has; the next ones are made by the new executable.
  systemctl try-restart sluice-aide.service || true
}

# The scripts of an rpm may have a network namespace of their own, with nothing in it (plugin "unshare" of rpm 4.20).
detach() {
  if is_running; then nsenter --net=/proc/1/ns/net sluice detach --plugin; else sluice detach --plugin; fi
}

# Removes what the agent and `boot` have put on the node. Outside of a running system there is nothing, unless boot
# was run there; and a chroot must not touch the network of the node around it.
removing() {
  if is_running; then systemctl stop sluice.service sluice-aide.socket sluice-aide.service sluice-boot.service; fi
  if is_running || [ -e /run/sluice/settings.toml ]; then
    detach || {
      complain "something of ours would be left, so nothing is removed"
      if is_running; then systemctl start sluice.service || true; fi
      return 1
    }
  fi
  # shellcheck disable=SC2086  # two words
  systemctl --quiet disable $units
}

# What no package lists: state of this boot, and the directory of the pins.
removed() {
  rm -rf /run/sluice
  if [ -d /sys/fs/bpf/sluice ]; then rmdir /sys/fs/bpf/sluice || complain "/sys/fs/bpf/sluice is left"; fi
  if is_running; then systemctl daemon-reload; fi
}
