/** The latencies of the calls of a batch. */
export interface Latency {
  /** The mean time of a call. */
  readonly millis: number
  /** The spread of the logarithm of that time. 0: all calls take the same time. */
  readonly sigma: number
}

/** The time of call `n`, without chance: the quantiles of the distribution, in a scattered order. */
export const latencyOf = ({ millis, sigma }: Latency, n: number): number => {
  if (sigma === 0) return millis
  const [one, other] = [(n * 0.618_033_988_7 + 0.001) % 1, n * 0.754_877_666_2 % 1]
  const normal = Math.sqrt(-2 * Math.log(one)) * Math.cos(2 * Math.PI * other)
  return millis * Math.exp(sigma * normal - sigma ** 2 / 2)
}
