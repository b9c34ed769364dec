import { expect, test } from 'vitest';
import { serviceNodeOptions } from './config.ts';

test.for([
  [undefined, '--max-semi-space-size=4'],
  ['', '--max-semi-space-size=4'],
  ['--inspect', '--max-semi-space-size=4 --inspect'],
  ['--max-semi-space-size=16', '--max-semi-space-size=4 --max-semi-space-size=16'],
] as const)("keeps the person's own NODE_OPTIONS, which come last and win: %j", ([own, all]) => {
  expect(serviceNodeOptions(own)).toBe(all);
});
