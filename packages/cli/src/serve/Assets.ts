/** The files of the live page. No path of a request reaches the disk: the names are in a table. */
import { readFileSync } from "node:fs"
import type { ServerResponse } from "node:http"

const own = new URL("../../page/", import.meta.url)

/** A file of a package. What Node resolves can lie in a folder of its own within the package. */
const fileOf = (name: string, file: string) => (): URL => {
  const main = import.meta.resolve(name)
  return new URL(file, main.slice(0, main.lastIndexOf(`/${name}/`) + name.length + 2))
}

const page = (file: string) => (): URL => new URL(file, own)

const script = "text/javascript; charset=utf-8"
const style = "text/css; charset=utf-8"

type File = readonly [type: string, url: () => URL]

const files: ReadonlyMap<string, File> = new Map<string, File>([
  ["", ["text/html; charset=utf-8", page("index.html")]],
  ...["base.css", "page.css"].map((file) => [file, [style, page(file)]] as const),
  ...["page.js", "parts.js", "words.js"].map((file) => [file, [script, page(file)]] as const),
  ...["lit-html.js", "directive.js", "directive-helpers.js", "directives/repeat.js"].map((file) =>
    [`lib/${file}`, [script, fileOf("lit-html", file)]] as const
  ),
  ["lib/uPlot.esm.js", [script, fileOf("uplot", "dist/uPlot.esm.js")]],
  ["lib/uPlot.min.css", [style, fileOf("uplot", "dist/uPlot.min.css")]]
])

const headers = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "referrer-policy": "no-referrer",
  "x-content-type-options": "nosniff",
  "cache-control": "no-store"
}

const root = "/sluice/"

/** Answers with a file of the page. Returns false if it has none at this path. */
export const answer = (response: ServerResponse, path: string): boolean => {
  if (path === "/sluice") {
    response.writeHead(308, { location: root, "content-length": 0 })
    response.end()
    return true
  }
  const file = path.startsWith(root) ? files.get(path.slice(root.length)) : undefined
  if (file === undefined) return false
  const [type, url] = file
  const body = readFileSync(url())
  response.writeHead(200, { ...headers, "content-type": type, "content-length": body.length })
  response.end(body)
  return true
}
