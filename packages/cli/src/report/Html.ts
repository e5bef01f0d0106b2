/** Markup in which nothing stands that was not escaped. */
import * as Terminal from "../Terminal.ts"

/** Markup that is safe to be put into other markup. Only `html` makes it. */
export class Html {
  readonly markup: string

  constructor(markup: string) {
    this.markup = markup
  }
}

/** What can stand within markup: a text or a number is escaped. */
export type Part = Html | string | number | undefined | ReadonlyArray<Part>

/** Foreign text for a page, in an element or in an attribute in quotes. Every text goes through here. */
export const escape = (text: string): string =>
  // What reorders letters or is not seen at all deceives on a page as it does on a terminal.
  Terminal.escape(text).replaceAll(/[&<>"'`]/g, (character) => `&#${character.codePointAt(0)};`)

/** Markup as it is written, with every value in it escaped. */
export const html = (markup: TemplateStringsArray, ...parts: ReadonlyArray<Part>): Html =>
  new Html(markup.map((text, index) => text + render(parts[index])).join(""))

const render = (part: Part): string => {
  if (part === undefined) return ""
  if (part instanceof Html) return part.markup
  if (typeof part === "string" || typeof part === "number") return escape(String(part))
  return part.map(render).join("")
}
