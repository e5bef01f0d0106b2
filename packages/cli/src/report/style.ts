import { readFileSync } from "node:fs"

/** Reads the style sheet of the page: what it shares with the live page, and its own. */
export const style = (): string =>
  ["base.css", "report.css"].map((file) => readFileSync(new URL(`../../page/${file}`, import.meta.url), "utf8")).join(
    ""
  )
