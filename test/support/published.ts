import { execFile } from "node:child_process"
import {
  chmodSync,
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { basename, dirname, join, sep } from "node:path"
import { fileURLToPath } from "node:url"
import { promisify } from "node:util"

const root = fileURLToPath(new URL("../..", import.meta.url))

/** The folders of the packages that are published. */
const folders = ["core", "ai", "redis", "sql", "batch", "local-model", "testing", "cli"]

/** The fields of a manifest that are read here. */
export interface Manifest {
  readonly name: string
  readonly exports: { readonly [path: string]: unknown }
  readonly dependencies?: { readonly [name: string]: string }
  readonly peerDependencies?: { readonly [name: string]: string }
  readonly optionalDependencies?: { readonly [name: string]: string }
  readonly scripts?: { readonly [name: string]: string }
}

/** An unpacked package. */
export interface Published {
  readonly manifest: Manifest
  readonly folder: string
  /** The files of the tarball, with `/` between folders. */
  readonly files: ReadonlyArray<string>
}

/** Runs a program, and returns its standard output. The error of a failed program contains its output. */
export const execute = async (program: string, args: ReadonlyArray<string>, cwd: string): Promise<string> => {
  try {
    return (await promisify(execFile)(program, [...args], { cwd, timeout: 120_000, maxBuffer: 64 * 1024 * 1024 }))
      .stdout
  } catch (error) {
    if (!(error instanceof Error && "stdout" in error && "stderr" in error)) throw error
    throw new Error(`${error.message}\n${String(error.stdout)}\n${String(error.stderr)}`, { cause: error })
  }
}

/** Runs the TypeScript compiler. */
export const tsc = (args: ReadonlyArray<string>, cwd: string): Promise<string> =>
  execute(join(root, "node_modules", ".bin", "tsc"), args, cwd)

/**
 * Builds all packages from a clean copy, packs them, and unpacks the tarballs in `workshop`. Each finds only the dependencies in its
 * manifest, so an import of an undeclared package fails. Other packages come from the repository's `node_modules`, without network.
 */
export const publish = async (workshop: string): Promise<ReadonlyArray<Published>> => {
  const source = join(workshop, "source")
  copySources(source)
  linkModules(source)
  await tsc(["-b", ...folders.map((folder) => join("packages", folder))], source)

  const tarballs = join(workshop, "tarballs")
  mkdirSync(tarballs)
  const paths = folders.map((folder) => `./packages/${folder}`)
  await execute("npm", ["pack", ...paths, "--pack-destination", tarballs, "--ignore-scripts", "--offline"], source)

  const packages = await Promise.all(readdirSync(tarballs).map((tarball) => unpack(join(tarballs, tarball), workshop)))
  const known = new Map(packages.map(({ folder, manifest }) => [manifest.name, folder]))
  for (const { folder, manifest } of packages) {
    const modules = manifest.name.startsWith("@") ? dirname(dirname(folder)) : dirname(folder)
    link(modules, Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies }), known)
  }
  return packages
}

/**
 * Installs packages and all they depend on into a folder, as `npm install --prefix` does. Without links, so that a process that may not
 * read the repository can run them.
 */
export const install = (packages: ReadonlyArray<Published>, folder: string): void => {
  const known = new Map(packages.map(({ folder, manifest }) => [manifest.name, folder]))
  const add = (name: string): void => {
    const to = join(folder, "node_modules", ...name.split("/"))
    if (existsSync(to)) return
    const from = known.get(name) ?? realpathSync(join(root, "node_modules", name))
    cpSync(from, to, { recursive: true })
    const { dependencies, peerDependencies } = readManifest(to)
    // A dependency of another version is below the package, and was copied with it.
    for (const other of Object.keys({ ...dependencies, ...peerDependencies })) {
      if (known.has(other) || existsSync(join(root, "node_modules", other))) add(other)
    }
  }
  add("sluice")
  const bin = join(folder, "node_modules", ".bin")
  mkdirSync(bin)
  symlinkSync(join("..", "sluice", "dist", "bin.js"), join(bin, "sluice"))
  chmodSync(join(folder, "node_modules", "sluice", "dist", "bin.js"), 0o755)
}

/** Makes a project with these packages installed. */
export const makeProject = (
  folder: string,
  packages: ReadonlyArray<Published>,
  others: ReadonlyArray<string>,
  files: { readonly [name: string]: string }
): void => {
  mkdirSync(folder)
  const known = new Map(packages.map(({ folder, manifest }) => [manifest.name, folder]))
  link(join(folder, "node_modules"), [...known.keys(), ...others], known)
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: basename(folder), private: true, type: "module" }))
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({
      compilerOptions: {
        target: "ES2024",
        lib: ["ES2024", "DOM", "DOM.Iterable"],
        module: "NodeNext",
        types: others.includes("@types/node") ? ["node"] : [],
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        verbatimModuleSyntax: true,
        skipLibCheck: false,
        rootDir: ".",
        outDir: "out"
      },
      include: ["*.ts"]
    })
  )
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
}

const copySources = (to: string): void => {
  const excluded = new Set(["dist", "node_modules", "test"])
  for (const folder of folders) {
    cpSync(join(root, "packages", folder), join(to, "packages", folder), {
      recursive: true,
      filter: (path) => !excluded.has(basename(path)) && !path.endsWith(".tsbuildinfo")
    })
  }
  cpSync(join(root, "tsconfig.base.json"), join(to, "tsconfig.base.json"))
}

const linkModules = (to: string): void => {
  const ours = new Map(folders.map((folder) => {
    const path = join(to, "packages", folder)
    return [readManifest(path).name, path] as const
  }))
  const installed = globSync(["*", "@*/*"], { cwd: join(root, "node_modules") })
    .map((path) => path.split(sep).join("/"))
    .filter((name) => !name.startsWith(".") && (name.includes("/") || !name.startsWith("@")))
    .filter((name) => name !== "@sluice/bench")
  link(join(to, "node_modules"), installed, ours)
}

const link = (modules: string, names: ReadonlyArray<string>, known: ReadonlyMap<string, string>): void => {
  for (const name of names) {
    const path = join(modules, ...name.split("/"))
    mkdirSync(dirname(path), { recursive: true })
    symlinkSync(known.get(name) ?? realpathSync(join(root, "node_modules", name)), path, "junction")
  }
}

const unpack = async (tarball: string, workshop: string): Promise<Published> => {
  const unpacked = join(workshop, "unpacked", basename(tarball, ".tgz"))
  mkdirSync(unpacked, { recursive: true })
  await execute("tar", ["-xzf", tarball], unpacked)
  const manifest = readManifest(join(unpacked, "package"))
  const folder = join(unpacked, "node_modules", ...manifest.name.split("/"))
  mkdirSync(dirname(folder), { recursive: true })
  cpSync(join(unpacked, "package"), folder, { recursive: true })
  const files = globSync("**/*", { cwd: folder, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1).split(sep).join("/"))
  return { manifest, folder, files: files.toSorted() }
}

const readManifest = (folder: string): Manifest =>
  JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Manifest
