import { defineConfig } from 'vitest/config';

const folders = '{packages/*,services/*,bench,scripts,test}';
const neverTests = ['**/node_modules/**', '**/dist/**'];
const integrationTests = [`${folders}/**/*.int.test.ts`];
const wholeServiceTests = [`${folders}/**/*.e2e.test.ts`];
const timedTests = [`${folders}/**/*.timed.test.ts`];
const simulations = [`${folders}/**/*.sim.test.ts`];

/** With PostgreSQL, Kafka, LiveKit, Keycloak, Zipkin and browsers. */
const withRealParts = {
  exclude: neverTests,
  globalSetup: 'packages/dev-stack/src/vitest-global-setup.ts',
  testTimeout: 30_000,
  hookTimeout: 120_000,
};

/**
 * One project after the other. `unit` needs nothing but this checkout. `int` tries one piece with the real parts that
 * it needs, `e2e` the whole service, both three files at a time: they wait more than they work. `timed` holds the
 * service to times, for which it takes the machine for itself; `simulation` takes every core.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: [`${folders}/**/*.test.ts`],
          exclude: [...neverTests, ...integrationTests, ...wholeServiceTests, ...timedTests, ...simulations],
          // Some start a process of their own, which takes seconds where others have the processor.
          testTimeout: 20_000,
        },
      },
      {
        test: {
          ...withRealParts,
          name: 'int',
          include: integrationTests,
          maxWorkers: 3,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...withRealParts,
          name: 'e2e',
          include: wholeServiceTests,
          maxWorkers: 3,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          ...withRealParts,
          name: 'timed',
          include: timedTests,
          fileParallelism: false,
          sequence: { groupOrder: 3 },
        },
      },
      {
        test: {
          name: 'simulation',
          include: simulations,
          exclude: neverTests,
          sequence: { groupOrder: 4 },
          testTimeout: 600_000,
        },
      },
    ],
  },
});
