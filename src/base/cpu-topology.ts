/** How a machine's processors are put together. Each count is of one of what comes next. */
export interface CpuTopology {
  /** A core's. */
  readonly threads: number;
  /** A die's. */
  readonly cores: number;
  /** A package's. */
  readonly dies: number;
  readonly packages: number;
}

/** A processor's place. */
export interface CpuPlace {
  /** Package, die, core and thread in fields of as many bits as their counts need. Intel SDM vol. 3A §9.9.3 */
  readonly apicId: number;
  readonly package: number;
  /** In its package. */
  readonly die: number;
  /** In its package, as the APIC id has it: its die and its number there. */
  readonly coreId: number;
}

/** Lowest bits of an APIC id that number what is in a core, in a die, in a package. */
export interface CpuShifts {
  readonly core: number;
  readonly die: number;
  readonly package: number;
}

/** One package of cores with one thread each: what a machine has where nothing else is said. */
export const flatTopology = (count: number): CpuTopology => ({ threads: 1, cores: count, dies: 1, packages: 1 });

/** How many processors there are of it. */
export const processorCount = ({ threads, cores, dies, packages }: CpuTopology): number =>
  threads * cores * dies * packages;

const bits = (count: number): number => Math.ceil(Math.log2(count));

export function cpuShifts({ threads, cores, dies }: CpuTopology): CpuShifts {
  const core = bits(threads);
  const die = core + bits(cores);
  return { core, die, package: die + bits(dies) };
}

/** Where the processor of a number is: threads of a core are neighbours. */
export function cpuPlace(topology: CpuTopology, index: number): CpuPlace {
  const { threads, cores, dies } = topology;
  const shifts = cpuShifts(topology);
  const thread = index % threads;
  const core = Math.floor(index / threads) % cores;
  const die = Math.floor(index / (threads * cores)) % dies;
  const socket = Math.floor(index / (threads * cores * dies));
  const coreId = core + die * 2 ** (shifts.die - shifts.core);
  const apicId = thread + coreId * 2 ** shifts.core + socket * 2 ** shifts.package;
  return { apicId, package: socket, die, coreId };
}
