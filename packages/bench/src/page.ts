/** The marks between which a page of documentation holds what a run has found. */
const begin = "<!-- npm run bench -- --write: begin -->"
const end = "<!-- npm run bench -- --write: end -->"

/** What puts other tables between the marks of a page, or `undefined` if it has none. */
export const withTables = (page: string): ((tables: string) => string) | undefined => {
  const from = page.indexOf(begin)
  const to = page.indexOf(end, from)
  if (from === -1 || to === -1) return undefined
  return (tables) => `${page.slice(0, from + begin.length)}\n\n${tables}\n\n${page.slice(to)}`
}
