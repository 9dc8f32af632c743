/**
 * What root in a container may do. Docker's default set without four that ordinary services do not use:
 * NET_RAW (raw and packet sockets: spoofing below the firewall), MKNOD (device nodes), AUDIT_WRITE (forging audit
 * records) and SETFCAP (files that give capabilities; useless under no_new_privs). What is left lets an entrypoint
 * change owners, drop to another user, chroot and bind ports below 1024.
 */
export const CONTAINER_CAPABILITIES: readonly string[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_NET_BIND_SERVICE",
  "CAP_SETGID",
  "CAP_SETPCAP",
  "CAP_SETUID",
  "CAP_SYS_CHROOT",
];
