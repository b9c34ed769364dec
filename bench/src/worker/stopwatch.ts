/** Tells how long something has taken, and how much of the processor this process has used. */
export type Stopwatch = () => { readonly seconds: number; readonly cpuSeconds: number };

export const startStopwatch = (): Stopwatch => {
  const before = process.cpuUsage();
  const startedAtMs = performance.now();
  return () => {
    const { user, system } = process.cpuUsage(before);
    return { seconds: (performance.now() - startedAtMs) / 1000, cpuSeconds: (user + system) / 1e6 };
  };
};
