const words = new Map([
  ["ENOENT", "there is no such file or directory"],
  ["EACCES", "permission denied"],
  ["EPERM", "permission denied"],
  ["EISDIR", "it is a directory"],
  ["ENOTDIR", "a part of the path is no directory"],
  ["EEXIST", "it exists; --force replaces it"],
  ["ENOSPC", "the disk is full"],
  ["EROFS", "the file system is read-only"],
  ["EMFILE", "too many files are open"]
])

/** The system's code of an error, such as `ENOENT`, if it has one. */
export const codeOf = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined

/** An error of the file system in words. */
export const describe = (error: unknown): string => {
  const code = codeOf(error)
  return (code === undefined ? undefined : words.get(code)) ?? code ?? "it failed"
}
