import { seedsHold } from './seeds-hold.ts';

seedsHold({ from: 2501, count: 2500, steps: 200 });
