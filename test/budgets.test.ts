import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

/** What of a manifest, or of its entry in the lockfile, says what a user installs with it. */
interface Entry {
  readonly resolved?: string
  readonly link?: boolean
  readonly hasInstallScript?: boolean
  readonly dependencies?: { readonly [name: string]: string }
  readonly optionalDependencies?: { readonly [name: string]: string }
  readonly peerDependencies?: { readonly [name: string]: string }
  readonly scripts?: { readonly [name: string]: string }
}

const read = (path: string): unknown => JSON.parse(readFileSync(new URL(`../${path}`, import.meta.url), "utf8"))
const manifestOf = (folder: string): Entry => read(`packages/${folder}/package.json`) as Entry
const locked = (read("package-lock.json") as { readonly packages: { readonly [path: string]: Entry } }).packages

/** What a user gets who installs a package, by where it is in the lockfile. */
const installedWith = (path: string): ReadonlySet<string> => {
  const found = new Set<string>()
  const visit = (path: string): void => {
    const { dependencies, optionalDependencies, peerDependencies } = locked[path] ?? {}
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies })) {
      const next = resolve(path, name)
      if (next === undefined || found.has(next)) continue
      found.add(next)
      visit(next)
    }
  }
  visit(path)
  return found
}

/** Where Node finds a package that is imported from another. */
const resolve = (from: string, name: string): string | undefined => {
  const folders = from.split("/")
  for (let depth = folders.length; depth >= 0; depth--) {
    const path = [...folders.slice(0, depth), "node_modules", name].join("/")
    const entry = locked[path]
    if (entry !== undefined) return entry.link === true ? entry.resolved : path
  }
  return undefined
}

/** What a package of ours asks for by itself: all of it, and no more. */
const asksFor = (folder: string): { readonly needs: ReadonlyArray<string>; readonly peers: ReadonlyArray<string> } => {
  const { dependencies = {}, optionalDependencies = {}, peerDependencies = {} } = manifestOf(folder)
  return { needs: Object.keys({ ...dependencies, ...optionalDependencies }), peers: Object.keys(peerDependencies) }
}

const published = ["core", "ai", "redis", "local-model", "testing", "cli"]

describe("the budget of dependencies", () => {
  it("core has its peer `effect`, and nothing else", () => {
    assert.deepStrictEqual(asksFor("core"), { needs: [], peers: ["effect"] })
    assert.deepStrictEqual([...installedWith("packages/core")], ["node_modules/effect"])
  })

  for (const folder of ["redis", "testing"]) {
    it(`${folder} needs only core`, () => {
      assert.deepStrictEqual(asksFor(folder), { needs: ["@sluice/core"], peers: ["effect"] })
    })
  }

  it("ai needs at most three", () => {
    const { needs, peers } = asksFor("ai")
    assert.isAtMost(needs.length, 3, needs.join(", "))
    assert.deepStrictEqual(peers, ["effect"])
  })

  it("the whole command installs at most eight beyond Effect's own", () => {
    // Effect's HTTP client brings its own: those are Effect's choice, and whoever uses Effect on Node has them already.
    const effects = new Set([
      "node_modules/effect",
      "node_modules/@effect/platform-node",
      ...installedWith("node_modules/@effect/platform-node")
    ])
    const others = [...installedWith("packages/cli")].filter((path) =>
      !effects.has(path) && !path.startsWith("packages/")
    )
    assert.include(others, "node_modules/wink-nlp")
    assert.isAtMost(others.length, 8, others.join(", "))
  })

  it("the lockfile knows what each package of ours asks for", () => {
    for (const folder of published) {
      const { dependencies, optionalDependencies, peerDependencies } = manifestOf(folder)
      const entry = locked[`packages/${folder}`]
      assert.deepStrictEqual(
        [entry?.dependencies, entry?.optionalDependencies, entry?.peerDependencies],
        [dependencies, optionalDependencies, peerDependencies],
        folder
      )
    }
  })

  it("nothing that a user installs runs a script then", () => {
    for (const folder of published) {
      // npm runs `prepack` where it is packed, and nowhere else.
      assert.deepStrictEqual(manifestOf(folder).scripts, { prepack: "tsc -b" }, folder)
      const scripted = [...installedWith(`packages/${folder}`)].filter((path) =>
        locked[path]?.hasInstallScript === true
      )
      assert.deepStrictEqual(scripted, [], folder)
    }
  })
})
