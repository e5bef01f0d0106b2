/** Markup whose values are escaped. */
import * as Terminal from "../Terminal.ts"

/** Safe markup. Made by `html`. */
export class Html {
  readonly markup: string

  constructor(markup: string) {
    this.markup = markup
  }
}

/** A value in markup. Strings and numbers are escaped. */
export type Part = Html | string | number | undefined | ReadonlyArray<Part>

/** Escapes text for an element or a quoted attribute. */
export const escape = (text: string): string =>
  // Characters that reorder text or are invisible mislead on a page as on a terminal.
  Terminal.escape(text).replaceAll(/[&<>"'`]/g, (character) => `&#${character.codePointAt(0)};`)

/** Template tag for markup. Escapes every value. */
export const html = (markup: TemplateStringsArray, ...parts: ReadonlyArray<Part>): Html =>
  new Html(markup.map((text, index) => text + render(parts[index])).join(""))

const render = (part: Part): string => {
  if (part === undefined) return ""
  if (part instanceof Html) return part.markup
  if (typeof part === "string" || typeof part === "number") return escape(String(part))
  return part.map(render).join("")
}
