/** The markers around the tables of a page. */
const begin = "<!-- npm run bench -- --write: begin -->"
const end = "<!-- npm run bench -- --write: end -->"

/** Returns a function that replaces the tables between the markers. `undefined` if the page has no markers. */
export const withTables = (page: string): ((tables: string) => string) | undefined => {
  const from = page.indexOf(begin)
  const to = page.indexOf(end, from)
  if (from === -1 || to === -1) return undefined
  return (tables) => `${page.slice(0, from + begin.length)}\n\n${tables}\n\n${page.slice(to)}`
}
