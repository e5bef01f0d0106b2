/** Exact equality. `any` equals only itself, so that none can hide in an inferred type. */
export type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false

export const typesAre = <_Same extends true>(): void => {}
