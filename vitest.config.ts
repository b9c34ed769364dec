import { defineConfig } from 'vitest/config';

const folders = '{packages/*,services/*,bench,scripts,test}';
const neverTests = ['**/node_modules/**', '**/dist/**'];
const integrationTests = [`${folders}/**/*.int.test.ts`];
const wholeServiceTests = [`${folders}/**/*.e2e.test.ts`];
const simulations = [`${folders}/**/*.sim.test.ts`];

/** With PostgreSQL, Kafka, LiveKit, Keycloak, Zipkin and browsers. */
const withRealParts = {
  exclude: neverTests,
  globalSetup: 'packages/dev-stack/src/vitest-global-setup.ts',
  testTimeout: 30_000,
  hookTimeout: 120_000,
};

/**
 * One project after the other. `unit` needs nothing but this checkout; `int` tries one piece with the real parts that
 * it needs, two files at a time; `e2e` the whole service, which takes a machine for itself; `simulation` every core.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: [`${folders}/**/*.test.ts`],
          exclude: [...neverTests, ...integrationTests, ...wholeServiceTests, ...simulations],
        },
      },
      {
        test: {
          ...withRealParts,
          name: 'int',
          include: integrationTests,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...withRealParts,
          name: 'e2e',
          include: wholeServiceTests,
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          name: 'simulation',
          include: simulations,
          exclude: neverTests,
          sequence: { groupOrder: 3 },
          testTimeout: 600_000,
        },
      },
    ],
  },
});
