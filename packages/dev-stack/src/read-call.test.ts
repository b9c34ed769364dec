import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';

const module = JSON.stringify(new URL('read-call.ts', import.meta.url).href);
const script = `
import { parseArgs } from 'node:util';
import { endWithReader, readCall } from ${module};
const { times } = readCall('repeat [--times N]', (args) =>
  parseArgs({ args, options: { times: { type: 'string', default: '1' } } }).values,
);
endWithReader();
const write = () => process.stdout.write('again\\n', () => setImmediate(write));
if (times === 'always') write();
else process.stdout.write('again\\n'.repeat(Number(times)));
`;
// Where a script's path stands otherwise.
const argv = ['--input-type=module', '--eval', script, '--', 'repeat'];
const run = (...args: string[]) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...argv, ...args], { encoding: 'utf8' });
  return { status, stdout, stderr };
};

test.each([
  [[], 'again\n'],
  [['--'], 'again\n'],
  [['--times', '2'], 'again\nagain\n'],
  [['--', '--times', '2'], 'again\nagain\n'],
])('a script takes %j, with the dashes that pnpm hands on or without', (args, stdout) => {
  expect(run(...args)).toEqual({ status: 0, stdout, stderr: '' });
});

test.each([[['--help']], [['--', '--help']], [['--times', '2', '--help']]])('%j tells how it is called', (args) => {
  expect(run(...args)).toEqual({ status: 0, stdout: 'repeat [--times N]\n', stderr: '' });
});

test.each([[['--tims', '2']], [['2']], [['--', '2']]])('%j is refused in two lines', (args) => {
  const { status, stdout, stderr } = run(...args);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toMatch(/^.*'(?:--tims|2)'.*\nrepeat \[--times N\]\n$/);
});

test('a script whose reader goes away ends without a stack, and not as if all had been told', async () => {
  const child = spawn(process.execPath, [...argv, '--times', 'always']);
  let complaint = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint += text;
  });
  await once(child.stdout, 'data');
  child.stdout.destroy();
  expect(await once(child, 'close')).toEqual([1, null]);
  expect(complaint).toBe('');
});
