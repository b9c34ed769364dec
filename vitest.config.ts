import { defineConfig } from 'vitest/config';

const folders = '{packages/*,services/*,bench,scripts,test}';
const neverTests = ['**/node_modules/**', '**/dist/**'];
const realTests = [`${folders}/**/*.{int,e2e}.test.ts`];
const simulations = [`${folders}/**/*.sim.test.ts`];

/**
 * `unit` needs nothing but this checkout; `real` starts PostgreSQL, Kafka, LiveKit, Keycloak, Zipkin and browsers;
 * `simulation` takes every core for a minute, after the others.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: [`${folders}/**/*.test.ts`],
          exclude: [...neverTests, ...realTests, ...simulations],
        },
      },
      {
        test: {
          name: 'real',
          include: realTests,
          exclude: neverTests,
          globalSetup: 'packages/dev-stack/src/vitest-global-setup.ts',
          fileParallelism: false,
          testTimeout: 30_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'simulation',
          include: simulations,
          exclude: neverTests,
          sequence: { groupOrder: 1 },
          testTimeout: 600_000,
        },
      },
    ],
  },
});
