/** The content of an input is not what its format requires. The message says why. */
export class Problem extends Error {}
