import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { wholeNumber } from './whole-number.ts';

test.each(['many', '0', '', '1e3', '-1', '7,8', '1.5', '9'.repeat(16)])('%j is no count', (text) => {
  expect(() => wholeNumber('seeds', text, 1)).toThrow(`--seeds takes a whole number from 1 on, not '${text}'`);
});

test('digits are', () => {
  expect(wholeNumber('seed', '0', 0)).toBe(0);
  expect(wholeNumber('seeds', '100000', 1)).toBe(100_000);
});

describe.each([
  ['simulation/main.ts', '--seeds'],
  ['torture-command.ts', '--events'],
])('%s', (program, option) => {
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [fileURLToPath(new URL(program, import.meta.url)), ...args], { encoding: 'utf8' });

  test(`proves nothing by ${option} that nobody can read`, () => {
    const { status, stdout, stderr } = run(option, 'many');
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(new RegExp(`^${option} takes a whole number.*\nnpm run .*${option}.*\n$`));
  });

  test('tells how it is called', () => {
    expect(run('--help')).toMatchObject({ status: 0, stdout: expect.stringContaining(option) });
  });
});
