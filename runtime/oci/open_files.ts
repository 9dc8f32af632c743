/** Open files per process of a container, soft; the hard limit where the machine allows it. */
export const OPEN_FILES_SOFT = 1024;
export const OPEN_FILES_HARD = 1_048_576;

/**
 * The hard limit of open files out of the text of `/proc/self/limits`, at most {@linkcode OPEN_FILES_HARD}. More than
 * one's own cannot be given to a container without CAP_SYS_RESOURCE.
 */
export function openFilesLimit(limits: string): number {
  const hard = /^Max open files\s+\S+\s+(\d+)/m.exec(limits)?.[1];
  return hard === undefined ? OPEN_FILES_HARD : Math.min(Number(hard), OPEN_FILES_HARD);
}
