const words = new Map([
  ["ENOENT", "no such file or directory"],
  ["EACCES", "permission denied"],
  ["EPERM", "permission denied"],
  ["EISDIR", "is a directory"],
  ["ENOTDIR", "part of the path is not a directory"],
  ["EEXIST", "already exists; use --force to replace it"],
  ["ENOSPC", "the disk is full"],
  ["EDQUOT", "the disk quota is used up"],
  ["EFBIG", "the file is too large for the file system or its limit"],
  ["EROFS", "the file system is read-only"],
  ["EMFILE", "too many files are open"]
])

/** Returns the system code of an error, such as `ENOENT`. */
export const codeOf = (error: unknown): string | undefined =>
  error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined

export const describe = (error: unknown): string => {
  const code = codeOf(error)
  return (code === undefined ? undefined : words.get(code)) ?? code ?? "unknown error"
}
