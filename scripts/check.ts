// `npm run check`: what can be said about the code without starting a server. Every step runs, and all faults are told.
// The tests against real PostgreSQL, Kafka, LiveKit and Keycloak are `npm test`.
import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { readCall } from '../packages/dev-stack/src/read-call.ts';

readCall('npm run check; there is nothing to say to it', (args) => parseArgs({ args }));

const steps = [
  { title: 'Format, lint and import boundaries', args: ['--run', 'lint'] },
  { title: 'Types', args: ['--run', 'types'] },
  { title: 'Unused files, exports and dependencies', args: ['--run', 'unused'] },
  { title: 'Duplicates', args: ['--run', 'duplicates'] },
  ...globSync('{packages,services}/*/scripts/generate.ts').map((generator) => ({
    title: `Generated files are current: ${generator}`,
    args: [generator, '--check'],
  })),
  { title: 'Links in documents', args: ['scripts/check-links.ts'] },
  { title: 'Words that may not be', args: ['scripts/check-words.ts'] },
  { title: 'Unit tests', args: ['--run', 'test:unit'] },
];

const failed = steps.filter(({ title, args }) => {
  console.log(`\n── ${title}`);
  return spawnSync(process.execPath, args, { stdio: 'inherit' }).status !== 0;
});

console.log(failed.length === 0 ? '\nEverything holds.' : '\nFaults in:');
for (const { title } of failed) console.log(`  ${title}`);
process.exitCode = failed.length === 0 ? 0 : 1;
