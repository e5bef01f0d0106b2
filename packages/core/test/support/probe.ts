export { everywhere as interruptEverywhere, yields } from "@sluice/testing/InterruptionProbe"
