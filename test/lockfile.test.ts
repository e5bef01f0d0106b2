import { assert, it } from "@effect/vitest"
import { readFileSync } from "node:fs"

interface Lockfile {
  readonly packages: {
    readonly [path: string]: {
      readonly resolved?: string
      readonly link?: boolean
      readonly hasInstallScript?: boolean
      readonly optionalDependencies?: { readonly [name: string]: string }
    }
  }
}

const { packages } = JSON.parse(readFileSync(new URL("../package-lock.json", import.meta.url), "utf8")) as Lockfile

// `npm install` omits packages that the registry does not have. `npm ci` then refuses the lockfile on every platform.
it("the lockfile has every optional package, also for other platforms", () => {
  const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.keys(optionalDependencies).filter((name) =>
      !(`node_modules/${name}` in packages) && !(`${path}/node_modules/${name}` in packages)
    )
  )
  assert.deepStrictEqual(missing, [])
})

it("the lockfile contains no URL of a registry", () => {
  const resolved = Object.entries(packages).filter(([, entry]) => entry.link !== true && entry.resolved !== undefined)
  assert.deepStrictEqual(resolved, [])
})

it("only dprint runs a script when it is installed", () => {
  const scripted = Object.keys(packages).filter((path) => packages[path]?.hasInstallScript === true)
  assert.deepStrictEqual(scripted, ["node_modules/dprint"])
})
